"""Read, walk and execute Core ML ML Programs anywhere."""
