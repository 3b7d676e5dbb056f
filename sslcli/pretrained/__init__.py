"""Other people's weights to start from: how their files name tensors, and how those get into an encoder."""
