#!/usr/bin/env bash
# Makes, or completes, the Python environment of the parity scripts: transformers and PyTorch, on the CPU.
#   tools/parity/setup.sh [VENV]        default: tools/parity/.venv; prints the interpreter to use
#
# On x86 Linux pip's torch asks for 3 GB of GPU libraries and 1 GB of triton. Its CPU half calls none of them but
# CUDA's run time (2 MB), yet the loader wants their names and symbols. So torch is installed without dependencies,
# and where it does not load, the run time is added, and one small library of functions that do nothing stands in
# for the rest.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
venv="${1:-$here/.venv}"
torch=2.15.0

python="$venv/bin/python"
[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
"$python" -m pip install --quiet --disable-pip-version-check --no-deps "torch==$torch"

loads() { "$python" -c 'import torch; torch.ones(2) @ torch.ones(2)' 2>/dev/null; }

# Writes the library that stands in for the GPU's: needs a C compiler and binutils, which Rust's linker needs too.
stand_in() {
    local lib name
    lib="$("$python" -c 'import importlib.util as u, os; print(os.path.dirname(u.find_spec("torch").origin))')/lib"
    # The functions that torch's libraries want of a GPU library, "name" or "name@version", by NVIDIA's prefixes.
    nm -D --undefined-only "$lib"/libtorch*.so "$lib"/libc10*.so | awk '{print $NF}' | sort -u |
        grep -E '^_*(cuda|cu[A-Z]|cublas|cudnn|cufft|cusparse|cusolver|curand|cupti|nccl|nvrtc|nvshmem|nvJitLink)' \
            > "$lib/no_gpu.txt"
    # Nobody calls them; should anybody, it must not pass unnoticed.
    { echo 'void abort(void);'; sed 's/@.*//' "$lib/no_gpu.txt" | sort -u | sed 's/.*/void &(void) { abort(); }/'; } \
        > "$lib/no_gpu.c"
    # The loader insists on the version of every versioned function.
    awk -F@ 'NF > 1 { v[$NF] = v[$NF] $1 "; " } END { for (n in v) print n " { global: " v[n] "};" }' \
        "$lib/no_gpu.txt" > "$lib/no_gpu.map"
    cc -shared -fPIC -fno-builtin -w -Wl,--version-script="$lib/no_gpu.map" -o "$lib/libno_gpu.so" "$lib/no_gpu.c"
    for name in $(readelf -d "$lib"/*.so | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u); do
        case "$name" in
        libcudart.so.*)
            "$python" -m pip install --quiet --disable-pip-version-check --no-deps "nvidia-cuda-runtime==${name##*.}.*" ;;
        # torch/lib is on the run path of every library of torch.
        libcu*.so.* | libnccl.so.* | libnvrtc.so.* | libnvshmem*.so.* | libnvJitLink.so.*)
            [ -e "$lib/$name" ] || ln -s libno_gpu.so "$lib/$name" ;;
        esac
    done
}

loads || stand_in
loads || { "$python" -c 'import torch'; exit 1; }
echo "$python"
