"""What is shared beside a model's weights: its card, and adapters with theirs."""
