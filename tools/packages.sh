# SPDX-License-Identifier: Apache-2.0
# Sourced by tools/run and tools/test: which of Debian's packages are needed, and how the missing ones are installed.

build_packages='gcc libc6-dev meson ninja-build pkg-config libfuse3-dev fuse3 libcurl4-openssl-dev libzstd-dev zlib1g-dev
        libssl-dev libxxhash-dev libcjson-dev libisal-dev libseccomp-dev
        ca-certificates'

test_packages='clang libclang-rt-14-dev libcmocka-dev libarchive-dev libarchive-tools docker-registry skopeo umoci buildah
        mmdebstrap python3 apache2-utils openssl zstd pigz tar xz-utils util-linux attr iproute2 procps clang-format bc
        python3-flatbuffers libyajl-dev squashfs-tools squashfuse bindfs dosfstools e2fsprogs'

installed()
{
        dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii'
}

# need PACKAGES…: installs those that are missing. Says nothing when none is.
need()
{
        missing=
        for package in "$@"; do
                installed "$package" || missing="$missing $package"
        done
        [ -n "$missing" ] || return 0

        if ! command -v apt-get >/dev/null; then
                echo "These packages are needed, and this is no Debian where they could be installed:$missing" >&2
                return 1
        fi
        as_root=
        if [ "$(id -u)" -ne 0 ]; then
                if ! command -v sudo >/dev/null; then
                        echo "These packages are needed; install them as root:$missing" >&2
                        return 1
                fi
                as_root=sudo
        fi
        echo "installing:$missing" >&2
        # Package lists may be absent or stale: fetch them once, then try.
        $as_root apt-get update -qq >&2 &&
                $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
}
