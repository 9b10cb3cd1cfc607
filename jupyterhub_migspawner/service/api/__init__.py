"""The REST API under ``api/``: a file a noun, the bodies in ``models/``, the rules in ``routes``.

Handlers declare their operations (:mod:`.operation`); the OpenAPI description is generated from the
declarations (:mod:`.openapi`).
"""
