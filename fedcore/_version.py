"""The version, in a file that can be read without importing TensorFlow."""

VERSION = "0.1.0"
