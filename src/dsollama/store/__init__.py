"""Ollama's store on disk: names, blobs, manifests, and dsollama's own folder beside them.

::

    OLLAMA_MODELS/
      blobs/sha256-HEX                                   Ollama's: weights and small layers
      manifests/registry.ollama.ai/library/NAME/TAG      Ollama's: one JSON per model name
      .dsollama/                                         ours; Ollama never looks here
        staging/KEY/                                     an install under way
          lock                                           held while one process works on it
          journal.json                                   what of it is in place
          merged.gguf, *.gguf                            the bytes, before they have a digest
        modelfiles/HOST/NAMESPACE/NAME/TAG               what each manifest says, as a Modelfile
        ledger/HEX.json                                  where an installed blob came from

Never speaks HTTP.
"""
