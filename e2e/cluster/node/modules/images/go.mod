// Programs of our own in the images of the test cluster. Standard library only.
module kms-acme.invalid/images

go 1.26.0
