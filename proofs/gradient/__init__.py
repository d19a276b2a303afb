"""H, the fixed-point program of statement G: one example's clipped gradient in integers alone. See README.md."""
