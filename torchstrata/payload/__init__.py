"""From wheels to layers: fetching, placing, compiling, and the CUDA 12 compiler."""
