"""What the row python3 runs: objects, dictionaries, strings, closures, generators, big integers."""


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def moved(self, dx, dy):
        return Point(self.x + dx, self.y + dy)


def primes(limit):
    sieve = bytearray([1]) * limit
    for i in range(2, limit):
        if sieve[i]:
            yield i
            sieve[i * i::i] = bytes(len(range(i * i, limit, i)))


def queens(n, row=0, columns=0, left=0, right=0):
    if row == n:
        return 1
    found, free = 0, ~(columns | left | right) & ((1 << n) - 1)
    while free:
        bit = free & -free
        free ^= bit
        found += queens(n, row + 1, columns | bit, (left | bit) << 1, (right | bit) >> 1)
    return found


def main():
    point = Point(0, 0)
    for i in range(20000):
        point = point.moved(i & 3, -1)
    words = {}
    for i in range(20000):
        word = f'w{i * 7919 % 1013}'
        words[word] = words.get(word, 0) + len(word)
    text = ' '.join(sorted(words, key=lambda w: (words[w], w)))
    power = pow(3, 2000) * pow(7, 1500) % (10**300 + 7)
    print(point.x, point.y, sum(words.values()), text.count('w9'), sum(primes(30000)), queens(7), power % 1000003,
          sum(x * x / 3 for x in range(20000)))


main()
