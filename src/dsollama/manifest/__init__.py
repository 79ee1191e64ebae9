"""What Ollama writes about a model: name, manifest, small layers, Modelfile. Pure."""
