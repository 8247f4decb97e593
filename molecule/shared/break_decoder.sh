#!/usr/bin/env bash
# TREE → BROKEN: the same tree, whose engine decodes every picture to one colour. What a broken VAE looks like.
set -euo pipefail
tree="$1" broken="$2"
rm -rf "$broken"
cp -a "$tree" "$broken"
cat >>"$broken/service/src/rockiln/engine/__init__.py" <<'END'


import diffusers

_decode = diffusers.AutoencoderKL.decode


def _one_colour(self, latents, *arguments, **options):
    decoded = _decode(self, latents, *arguments, **options)
    sample = decoded[0] if isinstance(decoded, tuple) else decoded.sample
    sample.zero_()
    return decoded


diffusers.AutoencoderKL.decode = _one_colour
END
