"""From the instances of one study to what a model says of them: read, preprocess, network, decode."""
