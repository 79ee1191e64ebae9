"""Ollama's store on disk: names, blobs, manifests, and dsollama's own folder beside them.

::

    OLLAMA_MODELS/
      blobs/sha256-HEX                                   Ollama's: weights and small layers
      manifests/registry.ollama.ai/library/NAME/TAG      Ollama's: one JSON per model name
      .dsollama/                                         ours; Ollama never looks here
        lock                                             held while names or blobs change
        staging/KEY/                                     an install under way
          lock                                           held while one process works on it
          journal.json                                   what of it is in place
          merged.gguf, *.gguf                            the bytes, before they have a digest
        removing/                                        a remove or gc under way
          PID-RANDOM.json                                which names and blobs it takes
        tmp/                                             small files under way, while `lock` is held
        modelfiles/HOST/NAMESPACE/NAME/TAG               what each manifest says, as a Modelfile
        ledger/HEX.json                                  where an installed blob came from
        repair/HEX.lock                                  held while one process mends that blob

Never speaks HTTP.
"""
