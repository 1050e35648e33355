#!/usr/bin/env bash
# The networks of about 0.3M parameters on 10 % of CIFAR-100, the same epochs, batch and augmentation for each, one seed.
#   benchmarks/small_models.sh cifar100.npz runs/small [EPOCHS]
# A run that was stopped goes on where it was. The table of docs/models.md: python benchmarks/gates.py RUNS/*
set -euo pipefail
data=$1 runs=$2 epochs=${3:-30}

train() {
    local out="$runs/$1"
    shift
    if [ -e "$out/last.pt" ]; then
        fourier-probe train --out "$out" --resume
    else
        fourier-probe train --data "$data" --data-scale 0.1 --epochs "$epochs" --batch-size 128 --warmup-epochs 3 \
            --out "$out" "$@"
    fi
}

train resnet20 --model cifar_resnet20
train prs --model cifar_resnet20 --schedule linear --max-key-grid 8
train vit_patch4 --model cifar_vit_patch4
train convit --model cifar_convit
train eit --model eit_small_w80
train vit_patch2 --model cifar_vit_patch2
