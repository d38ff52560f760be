'use strict';
// A function of example.yaml.

exports.parcels = async (message) => {
  console.log('a parcel', message.text());
};
