"""Everything that touches a traced program or an internal of JAX.

What a release of JAX may change stands here and nowhere else; `tests/programs` runs on the oldest and on
the newest release. Beside it stands what JAX has for trees and leaves open: their algebra, and the path of a
leaf as one writes it.
"""
