"""Stands before the package of this name on the path of all processes that tests start.

jsonschema imports that package, where it is installed, to check IRIs in schemas that have any; ours
and Jupyter's have none. The import compiles a grammar, which takes half of the processor time of
each start of a hub and of a notebook server. jsonschema does without what cannot be imported.
"""

raise ImportError("left out of tests: see tests/stubs/rfc3987_syntax.py")
