"""The Modelfile: the document, the template variants, and the manifest layers they become.

Pure: values in, values out. `text` parses and writes any
Modelfile, `document` makes ours, `variants` knows the template of
each model x variant, `layers` makes the small blobs of a manifest.
"""
