"""The only door to Ray and DeepSpeed."""
