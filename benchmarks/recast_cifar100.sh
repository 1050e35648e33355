#!/usr/bin/env bash
# ResNet-20 on 10 % of CIFAR-100: linear, none and constant at linear's mean epoch, one seed, shared beginnings forked.
#   benchmarks/recast_cifar100.sh cifar100.npz runs/cifar100 [EPOCHS]
# Layers with 8x8 keys convert (five): with the 16x16 ones an epoch takes ten times as long on two cores.
# A run that was stopped goes on where it was. The table: python benchmarks/gates.py RUNS/linear RUNS/none RUNS/constant
set -euo pipefail
data=$1 runs=$2 epochs=${3:-30}
first=$((epochs / 6)) mean=$((epochs / 3)) last=$((epochs / 2))

train() {
    local out="$runs/$1"
    shift
    if [ -e "$out/last.pt" ]; then
        fourier-probe train --out "$out" --resume
    else
        fourier-probe train --model cifar_resnet20 --data "$data" --data-scale 0.1 --epochs "$epochs" \
            --max-key-grid 8 --probe-every 5 --out "$out" "$@"
    fi
}

train linear --schedule linear --late-epoch "$first" --early-epoch "$last"
train none --fork "$runs/linear@$first" --checkpoint-at "$mean"
train constant --schedule constant --at-epoch "$mean" --fork "$runs/none@$mean"
