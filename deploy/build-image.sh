#!/bin/sh
# Builds the image with the first available of buildah, podman and docker. Options are passed on to its `build`:
#
#     deploy/build-image.sh --build-arg BASE=registry.example.com/python:3.13-slim
#     IMAGE=registry.example.com/kms-acme:1.2.3 deploy/build-image.sh
#
# Builds are reproducible: all time stamps are those of the last commit that changed what the lower layers are made of
# (SOURCE_DATE_EPOCH). So these layers stay the same until then, and an update moves only the layer of the program.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=$(git rev-parse --verify --quiet HEAD 2>/dev/null || echo unknown)
lower="requirements.lock deploy/requirements-build.lock deploy/Containerfile deploy/image"
# shellcheck disable=SC2086 # several paths
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct -- $lower 2>/dev/null || echo 0)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
export SOURCE_DATE_EPOCH
image=${IMAGE:-kms-acme:$version}

for engine in buildah podman docker ""; do
    [ -z "$engine" ] || ! command -v "$engine" >/dev/null || break
done
case $engine in
    "") echo "Install buildah, podman or docker to build an image: none of them is on PATH." >&2; exit 1 ;;
    docker) set -- --output "type=docker,rewrite-timestamp=true" "$@" ;;
    *) set -- --layers --timestamp "$SOURCE_DATE_EPOCH" "$@" ;;  # without --layers, buildah makes one layer of all
esac

"$engine" build --file deploy/Containerfile --tag "$image" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" "$@" .
echo "Built $image with $engine."
