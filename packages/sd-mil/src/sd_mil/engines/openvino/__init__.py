"""Programs on OpenVINO, on any processor that it runs on.

:mod:`.compiled` is the way in: a program is checked, rewritten by :mod:`sd_mil.rewriting` where that makes it
faster, and translated operation by operation (:mod:`.ops`). What has no translation is executed by the
reference engine between compiled segments: :mod:`sd_mil.engines.portable` joins the two.
"""
