def write(records, place):
    pass
