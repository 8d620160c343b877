#!/bin/sh
# Installs what the compatibility suites need beside Python: kcat, and a JDK with Maven.
# Without root and CI=true it changes nothing and says what is missing. Running it again is harmless.
set -eu

packages=""
command -v kcat >/dev/null || packages="$packages kcat"
command -v java >/dev/null || packages="$packages openjdk-17-jdk-headless"
command -v mvn >/dev/null || packages="$packages maven"

if [ -z "$packages" ]; then
    echo "Every tool is there: kcat, java, mvn."
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
