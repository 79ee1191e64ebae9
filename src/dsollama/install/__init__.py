"""From a quant's name to a model in the store: plan, then execute.

`plan.make_plan` asks the Hub and decides everything; `execute.execute` does that and nothing
else. `transfer` moves and verifies bytes, `journal` remembers what is in place. The only room
that knows `catalog`, `hub`, `gguf`, `modelfile` and `store` together.
"""
