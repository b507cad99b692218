#!/bin/busybox sh
# A real program, over and over, beside the dirtier: what it prints must be the same each time. Argument: which.
case $1 in
gzip) work() { gzip -c /bench/data | gunzip -c | gzip -9 -c; } ;;
python3) work() { python3.13 -S /bench/program.py; } ;;
sqlite3) work() { sqlite3 :memory: </bench/program.sql; } ;;
gcc) work() { riscv64-linux-gnu-gcc-14 -O2 -S -o - /bench/program.i; } ;;
redis) # its benchmark beside keys of our own, whose values must stay
    redis="redis-cli -s /tmp/redis.socket"
    redis-server --port 0 --unixsocket /tmp/redis.socket --save '' --appendonly no --daemonize yes --logfile /tmp/redis.log >/tmp/redis.out ||
        { echo "FAILED redis: $(cat /tmp/redis.out)" && exit 1; }
    until [ "$($redis ping 2>&1)" = PONG ]; do
        kill -0 "$(pidof redis-server | cut -d ' ' -f 1)" 2>/dev/null || { echo "FAILED redis: $(cat /tmp/redis.log)" && exit 1; }
    done
    $redis eval "for i = 1, 3000 do redis.call('set', 'own:' .. i, redis.sha1hex(i)) end" 0 >/dev/null
    work() {
        redis-benchmark -s /tmp/redis.socket -q -n 4000 -r 50000 -d 200 -c 10 -t set,get,lpush,hset >/tmp/benchmark 2>&1 || cat /tmp/benchmark
        $redis eval "local all = '' for i = 1, 3000 do all = redis.sha1hex(all .. redis.call('get', 'own:' .. i)) end return all" 0
        $redis del mylist >/dev/null
    }
    ;;
*) echo "FAILED no load $1" && exit 1 ;;
esac
export PYTHONHASHSEED=1 PYTHONDONTWRITEBYTECODE=1
sum() { work 2>&1 | md5sum; }
first=$(sum)
case $first in *d41d8cd98f00b204e9800998ecf8427e*) echo "FAILED load $1 printed nothing" && exit 1 ;; esac
while now=$(sum); do
    [ "$now" = "$first" ] || echo "ERROR load $1 printed something else"
done
