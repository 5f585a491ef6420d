#!/bin/sh
# `make demo`: the real-text study in this folder's mlruns/, where its data is at hand.
set -eu
bin=$1
if [ ! -d "$CLIPSTUDY_REAL_DATA/conll2000" ] || [ ! -d "$CLIPSTUDY_REAL_DATA/xprobe" ]; then
  echo "The demonstration needs real rows: folders conll2000/, xprobe/ and probing_derived_wsj/ in $CLIPSTUDY_REAL_DATA."
  echo "They are not there. Put them there, or say where they are: make demo CLIPSTUDY_REAL_DATA=/path/to/rows"
  echo "The tests need none of it: make test"
  exit 1
fi
echo "This takes about an hour on two cores. Ctrl-C gives back what is not done; make demo again goes on from there."
"$bin/clipstudy" init
"$bin/clipstudy" enqueue --all --study tests/real/study.toml
"$bin/clipstudy" worker --drain --study real
"$bin/clipstudy" report --study tests/real/study.toml
"$bin/clipstudy" results --study tests/real/study.toml
echo "next: open report.html; clipstudy ui; clipstudy enqueue --all (the paper's study)"
