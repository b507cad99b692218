#!/bin/busybox sh
# Rows of busybox programs. Arguments: the rows, none for all.
data=/bench/data # about 1.3 MB of text: bench/pack-guest
cat $data $data $data $data $data $data $data $data >/tmp/data8
wanted=" $* "
row() {
    case $wanted in '  ' | *" $1 "*) timed "$@" ;; esac
}
row sha256sum sha256sum /tmp/data8
row gzip gzip -c $data
row sort sort /bench/lines
row shell-loop sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); case $i in *77) last=$i ;; esac; done; echo $last'
row find find /bench/tree /bench/tree /bench/tree /bench/tree -name '*7*' -type f
row awk awk '{ sum += $1 % 97; words[$2]++ } END { for (w in words) n++; print sum, n }' /bench/lines
rm /tmp/data8
