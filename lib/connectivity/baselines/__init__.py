"""Other methods that connect modes: curves, elastic bands, alignment (paper 1 compares LLPF with them)."""
