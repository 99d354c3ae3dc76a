# shellcheck shell=bash
# To be sourced: apt for this build alone.

# apt with the machine's sources and keys, but with lists, downloads and a package status of its own: it neither reads
# nor changes what is installed, and needs no root. The directory is made by the caller.
private_apt() { # directory program arguments...
    local dir=$1 program=$2
    shift 2
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    [ -e "$dir/status" ] || : >"$dir/status"
    "$program" -qq \
        -o Dir::State="$dir" -o Dir::State::lists="$dir/lists" -o Dir::State::status="$dir/status" \
        -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root \
        -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}
