#!/usr/bin/env bash
# Both planted plans on one machine with many cores and a GPU, for at most SECONDS; what is finished is packed into OUT.
# Each run has one thread. The primary plan runs on the CPU, the scales on the GPU, so that each has one kind of hardware.
#   studies/planted.sh SECONDS OUT [CPU_JOBS] [GPU_JOBS]
set -u
limit=$1 out=$2 cpu=${3:-10} gpu=${4:-6} work=${TMPDIR:-/tmp}/planted
mkdir -p "$work" "$out"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
sed 's/^threads = 1/threads = 1\ndevice = "cuda"/' studies/planted-scales.toml > "$work/planted-scales.toml"
timeout -s TERM "$limit" python3 -m fourier_probe sweep studies/planted.toml --out "$work/runs" --jobs "$cpu" \
    > "$out/cpu.log" 2>&1 &
timeout -s TERM "$limit" python3 -m fourier_probe sweep "$work/planted-scales.toml" --out "$work/scales" --jobs "$gpu" \
    > "$out/gpu.log" 2>&1 &
wait
for name in runs scales; do
    cd "$work/$name" || continue
    finished=$(grep -l '"test_acc"' */config.json | xargs -n 1 dirname)
    tar -czf "$out/$name.tar.gz" --exclude='*.pt' --exclude='.lock' $finished results.csv
    tar -czf "$out/$name-weights.tar.gz" $(for run in $finished; do
        grep -q '"seed": 0,' "$run/config.json" && echo "$run/last.pt"; done)
    cd - > /dev/null
done
ls -l "$out"
