#!/bin/sh
# Installs what the compatibility suites need beside Python: kcat, a JDK with Maven, Go, and Node with npm.
# Clients that want a newer Go than Debian's fetch it themselves, through the module proxy.
# Without root and CI=true it changes nothing and says what is missing. Running it again is harmless.
set -eu

packages=""
command -v kcat >/dev/null || packages="$packages kcat"
command -v java >/dev/null || packages="$packages openjdk-17-jdk-headless"
command -v mvn >/dev/null || packages="$packages maven"
command -v go >/dev/null || packages="$packages golang-go"
command -v node >/dev/null || packages="$packages nodejs"
command -v npm >/dev/null || packages="$packages npm"

if [ -z "$packages" ]; then
    echo "Every tool is there: kcat, java, mvn, go, node, npm."
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
