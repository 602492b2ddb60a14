"""Many runs, each in processes of its own. This package never imports torch."""
