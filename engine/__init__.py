"""The block-diffusion engine: usable alone, knows nothing of editors."""
