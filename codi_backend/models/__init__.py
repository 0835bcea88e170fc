"""The networks: diffusion networks, prompt encoders and autoencoders."""
