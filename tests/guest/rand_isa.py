#!/usr/bin/env python3
"""Makes blocks of random RV64GC + Zba/Zbb/Zbs instructions, as assembly for rand.c. The same seed gives the same text.

x2, x3, x4 belong to the harness; x30 is the middle of a memory window and is never written. A block is straight-line code
with short forward branches, ended by ecall. Traps are part of the game: the harness notes and skips them.
"""
import argparse, random

WRITABLE = [1] + list(range(5, 30)) + [31]
CORNERS = [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 32, (1 << 63) - 1, 1 << 63,
           (1 << 64) - 1, (1 << 64) - 2, 0xffffffff80000000, 0xffffffff7fffffff, 0x5555555555555555, 0xaaaaaaaaaaaaaaaa]
DOUBLES = [0, 1 << 63, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000,
           0x7ff0000000000001, 0xfff8000000001234, 1, 0x000fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff,
           0x3ff0000000000001, 0x3fefffffffffffff, 0x43e0000000000000, 0xc3e0000000000000, 0x41dfffffffc00000,
           0x41e0000000000000, 0x3fe0000000000000, 0x4000000000000000, 0x3ca0000000000000, 0x47efffffe0000000]
SINGLES = [0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 1, 0x007fffff, 0x00800000,
           0x7f7fffff, 0x3f800001, 0x4f000000, 0xcf000000, 0x5f000000, 0x3f000000, 0x33800000, 0x4effffff]

INT2 = ('add sub sll slt sltu xor srl sra or and addw subw sllw srlw sraw mul mulh mulhsu mulhu div divu rem remu mulw divw '
        'divuw remw remuw sh1add sh2add sh3add add.uw sh1add.uw sh2add.uw sh3add.uw andn orn xnor max maxu min minu rol ror '
        'rolw rorw bset bclr binv bext').split()
# Without ctzw: the oracle of version 7.2 takes the upper half for part of the word. isa_b.c has it.
INT1 = 'clz clzw ctz cpop cpopw sext.b sext.h zext.h orc.b rev8'.split()
INTI = 'addi slti sltiu xori ori andi addiw'.split()
SHIFT6 = 'slli srli srai rori bseti bclri binvi bexti slli.uw'.split()
SHIFT5 = 'slliw srliw sraiw roriw'.split()
LOADS = [('lb', 1), ('lbu', 1), ('lh', 2), ('lhu', 2), ('lw', 4), ('lwu', 4), ('ld', 8)]
STORES = [('sb', 1), ('sh', 2), ('sw', 4), ('sd', 8)]
FP_ACCESS = [('flw', 4), ('fld', 8), ('fsw', 4), ('fsd', 8)]
AMOS = 'amoswap amoadd amoand amoor amoxor amomin amomax amominu amomaxu'.split()
BRANCHES = 'beq bne blt bge bltu bgeu'.split()
MODES = ['rne', 'rtz', 'rdn', 'rup', 'rmm', 'dyn', 'dyn', 'dyn']
FP2 = 'fadd fsub fmul fdiv'.split()
FP2_PLAIN = 'fmin fmax fsgnj fsgnjn fsgnjx'.split()
FP3 = 'fmadd fmsub fnmadd fnmsub'.split()
FP_COMPARE = 'feq flt fle'.split()


class Block:
    def __init__(self, rng, number):
        self.rng, self.number, self.lines, self.labels = rng, number, [], 0

    def put(self, text):
        self.lines.append(text)

    def rd(self):
        return f'x{self.rng.choice(WRITABLE)}' if self.rng.random() > 0.02 else 'x0'

    def rs(self):
        return f'x{self.rng.choice(WRITABLE + [0, 30])}'

    def f(self):
        return f'f{self.rng.randrange(32)}'

    def offset(self, size):
        at = self.rng.randrange(-2048, 2048 - size)
        return at if self.rng.random() < 0.1 else at // size * size

    def number_12(self):
        return self.rng.choice([self.rng.randrange(-2048, 2048), self.rng.randrange(-32, 32), 0, -1, 1, 2047, -2048])

    # Each of these puts one instruction, or a few that belong together.
    def integer(self):
        kind = self.rng.randrange(10)
        if kind < 5:
            self.put(f'{self.rng.choice(INT2)} {self.rd()}, {self.rs()}, {self.rs()}')
        elif kind == 5:
            self.put(f'{self.rng.choice(INT1)} {self.rd()}, {self.rs()}')
        elif kind == 6:
            self.put(f'{self.rng.choice(INTI)} {self.rd()}, {self.rs()}, {self.number_12()}')
        elif kind == 7:
            self.put(f'{self.rng.choice(SHIFT6)} {self.rd()}, {self.rs()}, {self.rng.randrange(64)}')
        elif kind == 8:
            self.put(f'{self.rng.choice(SHIFT5)} {self.rd()}, {self.rs()}, {self.rng.randrange(32)}')
        else:
            self.put(f'{self.rng.choice(["lui", "auipc"])} {self.rd()}, {self.rng.randrange(1 << 20)}')

    def small(self):
        """What the assembler can make compressed forms of."""
        rd, rs = f'x{self.rng.randrange(8, 16)}', f'x{self.rng.randrange(8, 16)}'
        kind = self.rng.randrange(6)
        if kind == 0:
            self.put(f'{self.rng.choice("add sub xor or and addw subw".split())} {rd}, {rd}, {rs}')
        elif kind == 1:
            self.put(f'addi {rd}, {rd}, {self.rng.randrange(-32, 32)}')
        elif kind == 2:
            self.put(f'{self.rng.choice(["slli", "srli", "srai"])} {rd}, {rd}, {self.rng.randrange(1, 64)}')
        elif kind == 3:
            self.put(f'andi {rd}, {rd}, {self.rng.randrange(-32, 32)}')
        elif kind == 4:
            self.put(f'li {rd}, {self.rng.randrange(-32, 32)}')
        else:
            self.put(f'mv {rd}, {rs}')

    def memory(self):
        if self.rng.random() < 0.5:
            name, size = self.rng.choice(LOADS)
            self.put(f'{name} {self.rd()}, {self.offset(size)}(x30)')
        else:
            name, size = self.rng.choice(STORES)
            self.put(f'{name} {self.rs()}, {self.offset(size)}(x30)')

    def memory_far(self):
        """Through a computed address, with a small offset; compressible where the registers allow."""
        base, (name, size) = f'x{self.rng.randrange(8, 16)}', self.rng.choice(LOADS + STORES)
        self.put(f'addi {base}, x30, {self.offset(256) // 8 * 8}')
        self.put(f'{name} x{self.rng.randrange(8, 16)}, {self.rng.randrange(0, 31) * size}({base})')

    def memory_crossing(self):
        """Over the page boundary that x30 points to, or next to it."""
        name, size = self.rng.choice([row for row in LOADS + STORES + FP_ACCESS if row[1] > 1])
        register = self.f() if name[0] == 'f' else self.rs() if name[0] == 's' else self.rd()
        self.put(f'{name} {register}, {self.rng.randrange(-size, 1)}(x30)')

    def atomic(self):
        at = self.rng.choice(WRITABLE)
        width, size = self.rng.choice([('w', 4), ('d', 8)])
        order = self.rng.choice(['', '.aq', '.rl', '.aqrl'])
        pair = self.rng.random() < 0.3
        # Misaligned is a trap. Not for LR and SC: the oracle's SC looks at the reservation first and merely fails.
        wrong = self.rng.randrange(1, size) if not pair and self.rng.random() < 0.06 else 0
        self.put(f'addi x{at}, x30, {self.offset(size) // size * size + wrong}')
        if pair:
            value = self.rng.choice([r for r in WRITABLE if r != at])
            self.put(f'lr.{width} x{value}, (x{at})')
            self.put(f'addi x{value}, x{value}, {self.number_12()}')
            self.put(f'sc.{width} {self.rd()}, x{value}, (x{at})')
        else:
            self.put(f'{self.rng.choice(AMOS)}.{width}{order} {self.rd()}, {self.rs()}, (x{at})')

    def branch(self):
        label = f'.Lb{self.number}_{self.labels}'
        self.labels += 1
        self.put(f'{self.rng.choice(BRANCHES)} {self.rs()}, {self.rs()}, {label}')
        for _ in range(self.rng.randrange(1, 4)):
            self.rng.choice([self.integer, self.small, self.floating])()
        self.lines.append(f'{label}:')

    def floating(self):
        t, mode, kind = self.rng.choice('sd'), self.rng.choice(MODES), self.rng.randrange(12)
        if kind < 3:
            self.put(f'{self.rng.choice(FP2)}.{t} {self.f()}, {self.f()}, {self.f()}, {mode}')
        elif kind < 5:
            self.put(f'{self.rng.choice(FP3)}.{t} {self.f()}, {self.f()}, {self.f()}, {self.f()}, {mode}')
        elif kind == 5:
            self.put(f'fsqrt.{t} {self.f()}, {self.f()}, {mode}')
        elif kind == 6:
            self.put(f'{self.rng.choice(FP2_PLAIN)}.{t} {self.f()}, {self.f()}, {self.f()}')
        elif kind == 7:
            self.put(f'{self.rng.choice(FP_COMPARE)}.{t} {self.rd()}, {self.f()}, {self.f()}')
        elif kind == 8:
            self.put(f'fcvt.{self.rng.choice(["w", "wu", "l", "lu"])}.{t} {self.rd()}, {self.f()}, {mode}')
        elif kind == 9:
            source = self.rng.choice(['w', 'wu', 'l', 'lu'])
            mode = '' if t == 'd' and source in ('w', 'wu') else f', {mode}'
            self.put(f'fcvt.{t}.{source} {self.f()}, {self.rs()}{mode}')
        elif kind == 10:
            self.put(self.rng.choice([f'fcvt.s.d {self.f()}, {self.f()}, {mode}', f'fcvt.d.s {self.f()}, {self.f()}']))
        else:
            self.put(self.rng.choice([
                f'fclass.{t} {self.rd()}, {self.f()}', f'fmv.x.w {self.rd()}, {self.f()}', f'fmv.x.d {self.rd()}, {self.f()}',
                f'fmv.w.x {self.f()}, {self.rs()}', f'fmv.d.x {self.f()}, {self.rs()}',
                f'fl{"w" if t == "s" else "d"} {self.f()}, {self.offset(8)}(x30)',
                f'fs{"w" if t == "s" else "d"} {self.f()}, {self.offset(8)}(x30)']))

    def flags(self):
        """An operation's own flags: none before, read and cleared after."""
        self.put('csrwi fflags, 0')
        self.floating()
        self.put(f'csrrw {self.rd()}, fflags, {self.rng.choice(["x0", self.rs()])}')

    def fresh(self):
        """A corner value again: random arithmetic soon knows nothing but huge numbers and not-a-numbers."""
        if self.rng.random() < 0.4:
            self.put(f'li {self.rd()}, {signed(integer_value(self.rng))}')
            return
        register = self.rng.choice(WRITABLE)
        self.put(f'li x{register}, {signed(double_value(self.rng))}')
        self.put(f'fmv.d.x {self.f()}, x{register}')

    def control(self):
        self.put(self.rng.choice([
            f'csrrw {self.rd()}, fflags, {self.rs()}', f'csrrs {self.rd()}, fcsr, x0', f'fsrmi {self.rd()}, {self.rng.randrange(5)}',
            f'csrrci {self.rd()}, fflags, {self.rng.randrange(32)}', f'csrrsi {self.rd()}, fflags, {self.rng.randrange(32)}',
            f'csrrw {self.rd()}, sscratch, {self.rs()}', 'fence rw, rw', 'fence.i', 'nop']))

    def trap(self):
        self.put(self.rng.choice([
            '.word 0xffffffff', '.half 0', 'csrw mhartid, x0', 'csrr x5, 0x5c0', 'ebreak', 'c.ebreak',
            '.insn r 0x53, 5, 0x01, x1, x2, x3',  # fadd.d with a rounding mode that there is not
            f'ld {self.rd()}, 8(x0)', f'sd {self.rs()}, 16(x0)',
            f'lr.w {self.rd()}, (x30)\nfsrmi 6\nfadd.d f1, f2, f3, dyn\nfsrmi 1']))

    KINDS = [('integer', 30), ('small', 12), ('memory', 12), ('memory_far', 6), ('memory_crossing', 4), ('atomic', 6), ('branch', 6), ('floating', 24), ('flags', 8),
             ('fresh', 8), ('control', 3), ('trap', 1)]

    def fill(self, length):
        names, weights = zip(*self.KINDS)
        while len(self.lines) < length:
            getattr(self, self.rng.choices(names, weights)[0])()


def signed(value):
    return value - (1 << 64) if value >> 63 else value


def integer_value(rng):
    value = rng.choice([rng.choice(CORNERS), rng.getrandbits(64), rng.getrandbits(32), rng.getrandbits(8)])
    return (value + rng.choice([0, 0, 1, -1])) % (1 << 64)


def double_value(rng):
    kind = rng.randrange(5)
    if kind == 0:
        return 0xffffffff << 32 | rng.choice(SINGLES)
    if kind == 1:
        return 0xffffffff << 32 | rng.getrandbits(32)
    if kind == 2:
        return rng.getrandbits(64)
    if kind == 3:  # of ordinary size
        return rng.getrandbits(1) << 63 | rng.randrange(1023 - 40, 1023 + 40) << 52 | rng.getrandbits(52)
    return rng.choice(DOUBLES)


def main():
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument('--seed', type=int, default=1)
    parse.add_argument('--blocks', type=int, default=200)
    parse.add_argument('--length', type=int, default=100, help='lines of a block')
    args = parse.parse_args()
    rng = random.Random(args.seed)
    print('.option arch, +zba, +zbb, +zbs\n.text')
    initial = []
    for number in range(args.blocks):
        block = Block(rng, number)
        block.fill(args.length)
        print(f'.align 2\nblock_{number}:')
        print('\n'.join(block.lines))
        print('ecall')
        values = [integer_value(rng) for _ in range(31)] + [double_value(rng) for _ in range(32)] + [rng.randrange(5) << 5]
        initial.append(values)
    print('.section .rodata\n.align 3\n.global rand_block, rand_blocks')
    for number, values in enumerate(initial):
        print(f'initial_{number}: .dword ' + ', '.join(hex(v) for v in values))
    print('rand_block:')
    for number in range(args.blocks):
        print(f'.dword block_{number}, initial_{number}')
    print(f'rand_blocks: .dword {args.blocks}')


if __name__ == '__main__':
    main()
