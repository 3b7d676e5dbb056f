"""Views of texts as token ids, drawn for a whole batch on the device."""
