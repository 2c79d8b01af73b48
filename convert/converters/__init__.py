"""Turns a trained model into an ONNX graph, by the kind of model it is."""
