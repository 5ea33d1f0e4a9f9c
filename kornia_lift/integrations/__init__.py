"""LIFT inside other programs: one module for each, imported on demand, since each needs that program's package.

- :mod:`kornia_lift.integrations.opencv`: keypoints as ``cv2.KeyPoint`` and back
- :mod:`kornia_lift.integrations.hloc`: extractor for hloc (Hierarchical-Localization)
- :mod:`kornia_lift.integrations.gluefactory`: extractor for glue-factory
- :mod:`kornia_lift.integrations.lightglue`: extractor with the interface of the LightGlue package
- :mod:`kornia_lift.integrations.vismatch`: matcher for vismatch (image-matching-models)
- :mod:`kornia_lift.integrations.deep_image_matching`: extractor for deep-image-matching
- :mod:`kornia_lift.integrations.onnx`: the networks as ONNX files

Feature files and databases (hloc h5, COLMAP) are in :mod:`kornia_lift.files`.
"""
