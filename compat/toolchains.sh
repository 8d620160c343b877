#!/bin/sh
# Installs what the tests need beside Python: kcat, a JDK with Maven, Go, Node with npm, Cargo, strace, ext4's tools with
# mount, and for networks of hosts iproute2, nftables and libfaketime. Clients that want a newer Go than Debian's fetch it
# themselves, through the module proxy.
# Without root and CI=true it changes nothing and says what is missing. Running it again is harmless.
set -eu

packages=""
command -v kcat >/dev/null || packages="$packages kcat"
command -v java >/dev/null || packages="$packages openjdk-17-jdk-headless"
command -v mvn >/dev/null || packages="$packages maven"
command -v go >/dev/null || packages="$packages golang-go"
command -v node >/dev/null || packages="$packages nodejs"
command -v npm >/dev/null || packages="$packages npm"
command -v cargo >/dev/null || packages="$packages cargo"
command -v strace >/dev/null || packages="$packages strace"
command -v mkfs.ext4 >/dev/null || packages="$packages e2fsprogs"
command -v mount >/dev/null || packages="$packages mount"
command -v ip >/dev/null || packages="$packages iproute2"
command -v nft >/dev/null || packages="$packages nftables"
ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || packages="$packages libfaketime"

if [ -z "$packages" ]; then
    echo "Every tool is there: kcat, java, mvn, go, node, npm, cargo, strace, mkfs.ext4, mount, ip, nft, libfaketime."
    exit 0
fi
if [ "${CI:-}" != true ] || [ "$(id -u)" -ne 0 ]; then
    echo "Missing Debian packages:$packages"
    echo "Install them with: apt-get install$packages"
    exit 1
fi
apt-get update
# The list is split into words on purpose.
# shellcheck disable=SC2086
apt-get install -y --no-install-recommends $packages
