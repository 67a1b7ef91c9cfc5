"""Requirements that more than one room names."""

# Ships the network of lesson 04. Installed without its dependencies, for the reason that the Makefile gives.
TEXT_DETECTION = "rapidocr-onnxruntime==1.4.4"
