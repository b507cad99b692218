#!/bin/busybox sh
# Rows of Debian's own programs (bench/fetch-programs). Arguments: the rows, none for all.
wanted=" $* "
row() {
    case $wanted in '  ' | *" $1 "*) timed "$@" ;; esac
}
rate() { # NAME OPTION...
    name=$1
    shift
    case $wanted in '  ' | *" $name "*) timed "$@" ;; esac
}
export PYTHONHASHSEED=1 PYTHONDONTWRITEBYTECODE=1
speed='openssl speed -mr -elapsed -seconds 1'
rate openssl-sha256 -u B/s -p +F: -n 4 openssl-sha256 $speed -bytes 8192 -evp sha256
rate openssl-aes-128-cbc -u B/s -p +F: -n 4 openssl-aes-128-cbc $speed -bytes 8192 -evp aes-128-cbc
rate openssl-rsa2048-sign -u /s -p +R1: -n 2 -d 4 openssl-rsa2048-sign $speed rsa2048
rate 7z-b -u MIPS -p Tot: -n 2 7z-b \
    sh -c '/usr/lib/7zip/7za b 1 -mmt1 -md18 -mtime=1 | sed -n "s/^Tot: *[0-9]* *[0-9]* *\([0-9]*\).*/Tot:\1/p"'
row python3 python3.13 -S /bench/program.py
row sqlite3 sh -c 'sqlite3 :memory: </bench/program.sql'
row gcc riscv64-linux-gnu-gcc-14 -O2 -S -o - /bench/program.i
