"""One module per measure. Each has TITLE, ENGINES and `run(engine, options) -> {key: number}`."""
