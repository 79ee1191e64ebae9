"""How dsollama reaches any server: which certificates it trusts, which proxies it takes.

`tls` has the one TLS context, `proxies` the one rule for proxies; `sessions` gives both to requests
and `httpx_transport` to huggingface_hub's client. Who a server is, the other rooms know.
"""
