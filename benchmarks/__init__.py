"""What the library costs, beside what people use today: every figure a ratio taken in one run (``make bench``)."""
