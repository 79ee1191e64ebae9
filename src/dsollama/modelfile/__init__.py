"""The Modelfile: the document, the template variants, and the manifest layers they become.

Pure: values in, values out. `document` writes a Modelfile, `variants` knows the template of
each model x variant, `layers` makes the small blobs of a manifest.
"""
