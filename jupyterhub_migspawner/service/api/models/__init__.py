"""Bodies of requests: pydantic models, one file a noun.

Answers are the views of :mod:`jupyterhub_migspawner.broker.views`, which the command line shows
too. The docstrings of models and fields are published in the OpenAPI description.
"""
