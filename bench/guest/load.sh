#!/bin/busybox sh
# A real program, over and over, beside the dirtier: what it prints must be the same each time. Argument: which.
case $1 in
gzip) work() { gzip -c /bench/data | gunzip -c | gzip -9 -c; } ;;
python3) work() { python3.13 -S /bench/program.py; } ;;
sqlite3) work() { sqlite3 :memory: </bench/program.sql; } ;;
gcc) work() { riscv64-linux-gnu-gcc-14 -O2 -S -o - /bench/program.i; } ;;
*) echo "FAILED no load $1" && exit 1 ;;
esac
export PYTHONHASHSEED=1 PYTHONDONTWRITEBYTECODE=1
sum() { work 2>&1 | md5sum; }
first=$(sum)
case $first in *d41d8cd98f00b204e9800998ecf8427e*) echo "FAILED load $1 printed nothing" && exit 1 ;; esac
while now=$(sum); do
    [ "$now" = "$first" ] || echo "ERROR load $1 printed something else"
done
