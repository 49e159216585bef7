"""Knowledge transfer from a trained network into a smaller, faster or better-adapted one."""
